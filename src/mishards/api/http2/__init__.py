"""An HTTP/2 server for short requests: each has one body, and so has its reply (RFC 9113)."""

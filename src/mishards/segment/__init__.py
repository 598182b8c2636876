"""The file formats: fresh rows and tombstones, segments, and the pure arithmetic that turns one into the other.

Local files and buffers only; nothing here knows storage, metadata or the loop.
"""

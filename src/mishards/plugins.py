"""Back ends by URL scheme or name, found through entry points exactly as a third party's would be."""

"""What all tests share: this folder is importable (`from oracle import Oracle`)."""

"""The metadata service over SQL (`store`), fresh ids (`ids`), and what a process knows of it (`mirror`)."""

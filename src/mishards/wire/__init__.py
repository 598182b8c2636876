"""What roles say to each other: messages, interfaces, and the frames that carry them between processes (P18)."""

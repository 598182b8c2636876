"""One module a revision: r0001_..., r0002_... in order."""

"""Questions of speed, memory and exactness, one a file; see README.md."""

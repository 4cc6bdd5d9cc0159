"""Episodes on disk, windows of them, their statistics, and the policies that record them."""

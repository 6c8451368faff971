"""What lies on disk, seen without torch: checkpoints and run folders."""

"""Scripts for those who work on the repository; they are not installed."""

"""Image encoders and the published ZS-SBIR methods, one file per paper."""

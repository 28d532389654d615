"""What a file under `params/` may say."""

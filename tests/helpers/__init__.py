"""What several tests share: tiny models, made-up data, paths."""

"""Operations on weights: each a folder with its definition and, where it has one, a fused path."""

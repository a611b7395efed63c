"""Schedule expressions as users write them."""

"""One inference, from trigger to evidence to delivery."""

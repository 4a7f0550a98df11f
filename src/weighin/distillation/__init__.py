"""A teacher with knowledge from outside: pretrained weights, and its logits of addressed views."""

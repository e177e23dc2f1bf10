"""The border to programs of others: what they raise, print, send and nest, kept from ending or confusing ours."""

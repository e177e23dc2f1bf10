"""The border to programs of others: what they raise, print, send and nest, kept from harming the verifier."""

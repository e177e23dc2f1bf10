"""The records a verification is made of; `verifier.result` has them all."""

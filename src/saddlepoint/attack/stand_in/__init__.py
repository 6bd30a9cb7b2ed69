"""What is differentiated in place of the deployed model; verdicts are never read from it."""

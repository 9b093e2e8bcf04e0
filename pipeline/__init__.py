"""Holdfast: the stages of a review, and what they share."""

"""One file per way of stressing the subject; `ways` finds them by name."""

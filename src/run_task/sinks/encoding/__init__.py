"""Values as JSON that tells their types, and back."""

"""The numerics: pure functions of a score, which know neither models nor methods."""

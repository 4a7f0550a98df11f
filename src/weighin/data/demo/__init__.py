"""The default data set: nine kinds of waste, drawn by the project itself."""

from weighin.data.demo.write import draw_demo

__all__ = ["DEFAULT_MD5", "draw_demo"]

DEFAULT_MD5 = "275748f4fb81f9fb704cc7f747c25bfa.dir"  # DVC's hash of what `draw_demo(folder)` draws

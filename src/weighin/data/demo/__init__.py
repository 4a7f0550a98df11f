"""The default data set: nine kinds of waste, drawn by the project itself."""

from weighin.data.demo.write import draw_demo

__all__ = ["DEFAULT_MD5", "draw_demo"]

DEFAULT_MD5 = "7038a0df7baf97a5e02731ca0ff725d0.dir"  # DVC's hash of what `draw_demo(folder)` draws

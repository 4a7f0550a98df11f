"""The default data set: nine kinds of waste, drawn by the project itself."""

from weighin.data.demo.write import draw_demo

__all__ = ["draw_demo"]

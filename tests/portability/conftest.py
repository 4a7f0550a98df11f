"""The project of the pipeline's tests, which a test here builds again on other processors."""

from tests.pipeline.conftest import built as built

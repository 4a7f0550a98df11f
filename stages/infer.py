"""submission/model.onnx, data/test -> submission/submission.csv: a label for every test image."""

from pathlib import Path

from weighin.stage import Stage, main


def infer(stage: Stage) -> None:
    """Label the test folder with the code that the grader runs."""
    from weighin.files import write_text
    from weighin.grading.grade import submission_text
    from weighin.grading.model import open_model
    from weighin.grading.predict import predict

    found = predict(open_model(Path("submission/model.onnx")), Path("data/test"))
    write_text(Path("submission/submission.csv"), submission_text(found))


if __name__ == "__main__":
    main(infer)

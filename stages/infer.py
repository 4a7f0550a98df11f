"""submission/model.onnx, data/test -> submission/submission.csv: a label for every test image."""

from pathlib import Path

from weighin.stage import Stage, main


def infer(stage: Stage) -> None:
    """Label the test folder with the code that the grader runs."""
    from weighin.files import csv_text, write_text
    from weighin.grading.grade import HEADER, submission_text
    from weighin.grading.model import open_model
    from weighin.grading.predict import predict
    from weighin.progress import say

    folder = Path("data/test")
    if folder.is_dir():
        found = predict(open_model(Path("submission/model.onnx")), folder)
        found.check_readable(folder)
        if found.faults_summary:
            say(f"infer  {found.faults_summary}; these get the fallback class")
        text = submission_text(found)
    else:  # data without a test folder: there is nothing to label
        text = csv_text(HEADER, ())
    write_text(Path("submission/submission.csv"), text)


if __name__ == "__main__":
    main(infer)

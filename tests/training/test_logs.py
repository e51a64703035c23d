import csv

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from geolink.training.logs import RunLog


def rows(folder):
    with (folder / "log.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]


def test_lines_go_to_the_table_and_to_tensorboard(tmp_path):
    log = RunLog(tmp_path, step=0)
    log.write(1, {"loss": 2.0})
    log.write(2, {"loss": 1.5})
    log.close()
    assert rows(tmp_path) == [{"step": "1", "loss": "2"}, {"step": "2", "loss": "1.5"}]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 2.0), (2, 1.5)]


def test_new_columns_join_the_table(tmp_path):
    log = RunLog(tmp_path, step=0)
    log.write(1, {"loss": 2.0})
    log.write(1, {"knn_accuracy": 0.5})
    log.write(2, {"loss": 1.0})
    log.close()
    found = rows(tmp_path)
    assert found[1] == {"step": "1", "knn_accuracy": "0.5"}
    assert found[2] == {"step": "2", "loss": "1"}


def test_a_resumed_log_drops_what_was_not_saved(tmp_path):
    log = RunLog(tmp_path, step=0)
    for step in (1, 2, 3):
        log.write(step, {"loss": step})
    log.close()
    with (tmp_path / "log.csv").open("a") as file:
        file.write("4,0.")  # the kill came while a line was written
    again = RunLog(tmp_path, step=2)
    again.write(3, {"loss": 30})
    again.close()
    assert [row["loss"] for row in rows(tmp_path)] == ["1", "2", "30"]


def test_a_new_run_starts_a_new_table(tmp_path):
    (tmp_path / "log.csv").write_text("step,loss\n1,5\n")
    RunLog(tmp_path, step=0).close()
    assert rows(tmp_path) == []

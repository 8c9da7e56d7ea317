import sys

from rt.executor import frames


def test_team_code_is_in_its_folder_and_not_a_library() -> None:
    assert frames.is_team_file("/robot/studentcode.py", "/robot")
    assert frames.is_team_file("/robot/parts/arm.py", "/robot")
    assert not frames.is_team_file("/robot2/studentcode.py", "/robot")
    assert not frames.is_team_file("/robot/venv/lib/site-packages/numpy/core.py", "/robot")
    assert not frames.is_team_file("rt/executor/api.py", "/robot")


def test_rt_and_python_are_not_team_code() -> None:
    assert not frames.is_team_file(
        frames.__file__, frames.__file__.split("/rt/executor/", maxsplit=1)[0]
    )
    assert not frames.is_team_file(f"{sys.prefix}/lib/x.py", sys.prefix.rpartition("/")[0])
    assert frames.is_team_file(f"{sys.prefix}/robot/x.py", f"{sys.prefix}/robot")

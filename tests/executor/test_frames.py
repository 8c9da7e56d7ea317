import sys

from rt.executor import frames


def test_the_teams_code_is_what_stands_in_its_folder_and_is_no_library() -> None:
    assert frames.is_team_file("/robot/studentcode.py", "/robot")
    assert frames.is_team_file("/robot/parts/arm.py", "/robot")
    assert not frames.is_team_file("/robot2/studentcode.py", "/robot")
    assert not frames.is_team_file("/robot/venv/lib/site-packages/numpy/core.py", "/robot")
    assert not frames.is_team_file("rt/executor/api.py", "/robot")


def test_rt_and_python_are_not_the_teams_even_where_they_stand_in_its_folder() -> None:
    assert not frames.is_team_file(
        frames.__file__, frames.__file__.split("/rt/executor/", maxsplit=1)[0]
    )
    assert not frames.is_team_file(f"{sys.prefix}/lib/x.py", sys.prefix.rpartition("/")[0])
    assert frames.is_team_file(f"{sys.prefix}/robot/x.py", f"{sys.prefix}/robot")

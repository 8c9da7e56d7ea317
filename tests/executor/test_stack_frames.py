import sys

from rt.executor import stack_frames


def test_team_code_is_in_its_folder_and_not_a_library() -> None:
    assert stack_frames.is_team_file("/robot/studentcode.py", "/robot")
    assert stack_frames.is_team_file("/robot/parts/arm.py", "/robot")
    assert not stack_frames.is_team_file("/robot2/studentcode.py", "/robot")
    assert not stack_frames.is_team_file("/robot/venv/lib/site-packages/numpy/core.py", "/robot")
    assert not stack_frames.is_team_file("rt/executor/api.py", "/robot")


def test_rt_and_python_are_not_team_code() -> None:
    assert not stack_frames.is_team_file(
        stack_frames.__file__, stack_frames.__file__.split("/rt/executor/", maxsplit=1)[0]
    )
    assert not stack_frames.is_team_file(f"{sys.prefix}/lib/x.py", sys.prefix.rpartition("/")[0])
    assert stack_frames.is_team_file(f"{sys.prefix}/robot/x.py", f"{sys.prefix}/robot")

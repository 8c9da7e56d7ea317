"""Checks of the team code, which is compiled but never run."""

import ast
import tokenize

from rt.config.team_code import find
from rt.doctor.registry import Environment, Result, check, fail, ok, warn


@check("code")
def code(environment: Environment) -> Result:
    """The team code exists and compiles."""
    name = environment.config.exec_module
    path = find(name, environment.directory)
    if path is None:
        absent = f"{name!r} is not in {environment.directory}"
        if environment.origins.get("exec_module", "default") != "default":
            return fail(absent, "correct exec_module, or run rt in the directory of the code")
        return warn(
            absent, "run `rt init` to create a studentcode.py; without it the robot is idle"
        )
    try:
        with tokenize.open(path) as file:
            source = file.read()
        tree = compile(source, str(path), "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
        compile(source, str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        place = f"{path}:{error.lineno}" if error.lineno else str(path)
        return fail(f"{place}: {error.msg}", "correct that line")
    except (ValueError, OSError) as error:
        return fail(f"{path}: {error}", "save the file as UTF-8 text that rt can read")
    # The code is not run, so names that are bound conditionally or by an import count too.
    bound = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    bound |= {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    bound |= {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    missing = [
        name
        for name in ("teleop_main", "autonomous_main")
        if name not in bound and "*" not in bound
    ]
    if missing:
        return warn(
            f"{path} has no {' and no '.join(missing)}",
            "define it; without it the mode does nothing after its setup",
        )
    return ok(f"{path} compiles, {len(source.splitlines())} lines; `rt lint` checks more")

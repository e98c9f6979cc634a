"""``python -m deployr_serve.local_host --app PATH``: the host without the ``deployr`` command."""

import argparse
import logging
import os
import secrets
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from deployr_serve.local_host.errors import HostSetupError
from deployr_serve.local_host.keys import HostKeys
from deployr_serve.local_host.local_settings import export_settings, read_cors, read_local_settings
from deployr_serve.local_host.log_lines import FORMAT, AfterAnswers
from deployr_serve.local_host.serve import GRACE_S, run_host

MASTER_KEY = "DEPLOYR_HOST_MASTER_KEY"
FUNCTION_KEY = "DEPLOYR_HOST_FUNCTION_KEY"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the host; 0 when it was stopped, 2 when it could not start.

    Keys come from the environment, or are made and printed once to standard error.
    """
    options = _parser().parse_args(argv)
    logging.basicConfig(level=options.log_level, format=FORMAT, handlers=[AfterAnswers()])
    # At INFO the Azure SDK prints request URLs and partition keys.
    logging.getLogger("azure").setLevel(logging.WARNING)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    folder = options.app if options.app.is_dir() else options.app.parent
    try:
        settings_file = options.settings or folder / "local.settings.json"
        export_settings(read_local_settings(settings_file), os.environ)
        run_host(
            app_path=options.app,
            host=options.host,
            port=options.port,
            keys=_keys(),
            settings=os.environ,
            state_dir=options.state or folder / ".deployr" / "timers",
            announce=_announce,
            cors=read_cors(settings_file),
            skip_unsupported=options.skip_unsupported,
            grace_s=options.grace,
        )
    except HostSetupError as error:
        if error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deployr_serve.local_host",
        description="Run an Azure Functions app (Python v2) without Azure and without the Core Tools.",
    )
    parser.add_argument("--app", type=Path, required=True, help="a function_app.py, or its folder")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=7071, help="port to listen on; 0 takes a free one")
    parser.add_argument("--settings", type=Path, help="default: local.settings.json beside the app")
    parser.add_argument("--state", type=Path, help="folder of the timers' status; default: .deployr/timers")
    parser.add_argument("--skip-unsupported", action="store_true", help="leave out other triggers")
    parser.add_argument("--grace", type=float, default=GRACE_S, help="seconds to finish in when stopped")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    return parser


def _keys() -> HostKeys:
    keys = HostKeys(
        master=os.environ.get(MASTER_KEY) or secrets.token_urlsafe(32),
        function=os.environ.get(FUNCTION_KEY) or secrets.token_urlsafe(32),
    )
    for variable, key in ((MASTER_KEY, keys.master), (FUNCTION_KEY, keys.function)):
        if variable not in os.environ:
            sys.stderr.write(f"{variable}={key}\n")
    return keys


def _announce(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

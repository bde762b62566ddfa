#!/usr/bin/env python3
"""agentstate's commands: `up` starts everything, `test` checks everything, `doctor` looks at a deployment."""

import os
import sys

from agentstate.dev.bootstrap import enter_environment, settings_module

if __name__ == "__main__":
    enter_environment()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", settings_module(sys.argv))
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)

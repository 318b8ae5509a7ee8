"""What `dbt.api` is made of: programs and bare CPUs that Python drives.

memory.py and registers.py are the guest's state, stops.py says why a CPU stands still, tools.py is what programs and
CPUs have in common, cpu.py and program.py run them.
"""

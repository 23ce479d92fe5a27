# What lessons with a log have, too.

.PHONY: trace

trace: $(COMMON)/tools  # ID=1: draws a task, its log and its children: trace-1.svg
	@$(WITH) sh $(COMMON)/trace.sh $(SCHEMA) '$(ID)'

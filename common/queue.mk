# What lessons with a queue have, too.

.PHONY: worker submit check

worker: build  # runs tasks until Ctrl-C; OPTIONS='--queue Q' and the like
	@$(WITH) ./lesson worker $(OPTIONS)

export NAME INPUT
submit: build  # NAME=noop INPUT='{"a": 1}' OPTIONS='--priority 3': enqueues a task
	@[ -n "$$NAME" ] || { echo "make submit NAME=noop INPUT='{\"a\": 1}' OPTIONS='--priority 3'" >&2; exit 1; }
	@$(WITH) sh -c './lesson submit "$$NAME" $${INPUT:+"$$INPUT"} $(OPTIONS)'

check: $(COMMON)/tools  # asks the database whether all that must hold does (check.sql)
	@$(WITH) $(COMMON)/tools check $(SCHEMA)

# The guide: make help lists what there is.

LESSON ?= $(lastword $(sort $(foreach d,$(wildcard lessons/[0-9]*),$(firstword $(subst -, ,$(notdir $(d)))))))
DIR     = $(or $(wildcard lessons/$(LESSON)-*),$(error There is no lesson $(LESSON): say LESSON=01))

.PHONY: help run test test-long lint bench growth cost loc where pictures doctor db-start db-stop db-status db-destroy db-docker clean
.DEFAULT_GOAL := help

help:  # this list
	@printf 'Durable execution, the hard way, in C\n\n'
	@awk -F': .*# ' '/^[a-z-]+:.*# / {printf "  make %-16s %s\n", $$1, $$2}' Makefile
	@printf '\nIn a lesson (%s ...) make alone lists what can be done there.\n' '$(DIR)'

run:  # the demo of the last lesson, or of LESSON=01
	@$(MAKE) --no-print-directory -C $(DIR) build
	@cd $(DIR) && exec sh ../../common/postgres.sh with ./lesson

test:  # all tests, or those of LESSON=01, on a throw-away Postgres
	@sh common/setup.sh test
	@sh common/test/suite $(if $(filter command line environment,$(origin LESSON)),$(LESSON))

test-long:  # the same, and what takes too long for every day
	@sh common/setup.sh test
	@LONG=1 sh common/test/suite

lint:  # warnings of two compilers, layout, scripts, spelling
	@sh common/setup.sh lint
	@sh common/test/lint

bench:  # how far each lesson is from the limit of this Postgres; QUICK=1, LESSONS="04 07"
	@sh common/setup.sh run
	@sh common/bench/bench

growth:  # what a table that grows does to the last lesson; QUICK=1
	@sh common/setup.sh run
	@sh common/bench/growth

cost:  # what each statement of the last lesson costs, or of LESSON=04
	@sh common/setup.sh run
	@sh common/bench/cost $(LESSON)

loc:  # how much there is to read
	@sh common/loc.sh

where:  # NAME=claim_task: where it stands, and where it changes from lesson to lesson
	@sh common/where.sh '$(NAME)'

pictures:  # draws the tasks in the READMEs anew
	@for lesson in lessons/05-* lessons/07-*; do \
		$(MAKE) -s -C $$lesson run >/dev/null && $(MAKE) -s -C $$lesson trace ID=1 >/dev/null && \
		mv $$lesson/trace-1.svg $$lesson/trace.svg && echo $$lesson/trace.svg || exit 1; \
	done

doctor:  # what is installed, what is missing, which Postgres would be used
	@sh common/setup.sh doctor

db-start:  # starts the private Postgres (make run does it as well)
	@sh common/postgres.sh start

db-stop:  # stops it; what is in it stays
	@sh common/postgres.sh stop

db-status:  # is it running, and where
	@sh common/postgres.sh status

db-destroy:  # stops it and removes all that is in it, after asking (YES=1 does not ask)
	@sh common/postgres.sh destroy

db-docker:  # uses a Postgres in a container instead, from docker-compose.yml
	@sh common/postgres.sh docker

clean:  # removes what was compiled
	@rm -f lessons/*/lesson common/tools

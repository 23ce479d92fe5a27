# What every lesson's Makefile includes.  That sets PREVIOUS (the folder of the lesson before,
# or nothing) and TITLE; which lesson this is, the folder's name says.

COMMON := ../../common
override LESSON := $(firstword $(subst -, ,$(lastword $(subst /, ,$(CURDIR)))))
override SCHEMA := lesson_$(LESSON)
CFLAGS ?= -O2 -g
WARN   := -Wall -Wextra -Wshadow -Wstrict-prototypes
BUILD   = $(CC) -std=gnu17 $(WARN) $(CFLAGS) $(SANITIZERS) -DSCHEMA='"$(SCHEMA)"' -I$(COMMON)
SHARED := $(addprefix $(COMMON)/,memory.c json.c cli.c sql.c db.c)
PARTS  := $(SHARED) $(SHARED:.c=.h) $(COMMON)/lesson.mk
LIBS    = $(shell pkg-config --cflags --libs libpq 2>/dev/null || \
            echo "-I$$(pg_config --includedir) -L$$(pg_config --libdir) -lpq") \
          $(shell pkg-config --cflags --libs libcjson 2>/dev/null || echo -lcjson) -lm
WITH   := sh $(COMMON)/postgres.sh with
EXERCISES = $(notdir $(basename $(wildcard solution/*.patch)))

ifdef SANITIZE
SANITIZERS := -fsanitize=address,undefined -fno-sanitize-recover=undefined
endif

.PHONY: help run show watch psql race break exercise solution diff test build reset env clean setup \
	doctor db-start db-stop db-status db-destroy db-docker
.DEFAULT_GOAL := help

help:  # this list
	@printf 'Lesson %s: %s\n\n' '$(LESSON)' '$(TITLE)'
	@awk -F': .*# ' '/^[a-z -]+:.*# / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: build  # the demo: makes the tables anew from schema.sql, tells its story
	@$(WITH) ./lesson $(DEMO)

show: build  # what is in the tables; ID=7: all of one task
	@$(WITH) ./lesson show $(ID)

watch: build  # show, again and again, until Ctrl-C
	@$(WITH) sh -c 'while clear && ./lesson show; do sleep 1; done'

psql: $(COMMON)/tools  # psql in this lesson's schema
	@$(WITH) $(COMMON)/tools psql $(SCHEMA)

race: $(COMMON)/tools  # R=name: plays race/name.race on two real sessions
	@[ -d race ] || { echo 'This lesson has no races.' >&2; exit 1; }
	@[ -f 'race/$(R).race' ] || { echo 'make race R=name, with one of:' $(notdir $(basename $(wildcard race/*.race))) >&2; exit 1; }
	@$(WITH) $(COMMON)/tools race $(SCHEMA) 'race/$(R).race'

break: setup  # B=name: runs the demo without one safety, see break/name.patch
	@[ -f 'break/$(B).patch' ] || { echo 'make break B=name, with one of:' $(notdir $(basename $(wildcard break/*.patch))) >&2; exit 1; }
	@$(WITH) sh $(COMMON)/break.sh . 'break/$(B).patch'

exercise: setup  # E=name: does your version of this folder do what the exercise asks for?
	@grep -qs '^@test "$(E)"' exercises.bats || { echo 'make exercise E=name, with one of:' $(EXERCISES) >&2; exit 1; }
	@sh $(COMMON)/setup.sh test
	@EXERCISE=1 ONLY='^$(E)$$' sh $(COMMON)/test/suite $(LESSON)

solution:  # E=name: prints how it can be done
	@[ -f 'solution/$(E).patch' ] || { echo 'make solution E=name, with one of:' $(EXERCISES) >&2; exit 1; }
	@cat 'solution/$(E).patch'

diff:  # what this lesson changed against the one before; DEMO=1: its demo, too
	@sh $(COMMON)/diff.sh '$(PREVIOUS)' .

test:  # this lesson's tests, on a throw-away Postgres
	@sh $(COMMON)/setup.sh test
	@sh $(COMMON)/test/suite $(LESSON)

build: lesson  # compiles ./lesson

reset: build $(COMMON)/tools  # drops the tables and makes them anew from schema.sql
	@$(WITH) $(COMMON)/tools reset $(SCHEMA)

doctor db-start db-stop db-status db-destroy db-docker:  # as at the top of the guide
	@$(MAKE) -s -C ../.. $@

env:  # prints what the shell needs to start ./lesson itself: eval "$(make env)"
	@sh $(COMMON)/postgres.sh env

clean:  # removes what was compiled
	@rm -f lesson lesson.[0-9]* $(COMMON)/tools $(COMMON)/tools.[0-9]*

setup:
	@sh $(COMMON)/setup.sh run

lesson: main.c Makefile $(PARTS) | setup
	@[ -w . ] || { echo 'This folder cannot be written to, and the program is to be compiled into it: clone the guide into a folder of yours.' >&2; exit 1; }
	@$(BUILD) main.c $(SHARED) -o $@.$$$$ $(LIBS) && mv -f $@.$$$$ $@

$(COMMON)/tools: $(COMMON)/tools.c $(PARTS) | setup
	@$(BUILD) $(COMMON)/tools.c $(SHARED) -o $@.$$$$ $(LIBS) && mv -f $@.$$$$ $@

# From lesson 02 on there is a queue.
ifneq ($(wildcard check.sql),)
include $(COMMON)/queue.mk
endif

# From lesson 05 on there is a log.
ifneq ($(shell grep -ilE '^create table.* event ' schema.sql 2>/dev/null),)
include $(COMMON)/trace.mk
endif

# From lesson 06 on there are logs to keep.
ifneq ($(wildcard golden/*.json),)
include $(COMMON)/golden.mk
endif

/*
 * What ld's --wrap links between modules of the program, for the books to see: what becomes a
 * message, what is asked of the spool, and what is logged. Each calls what it stands for.
 */
#pragma once

#include "agents/log_client.h"
#include "agents/scheduler.h"
#include "spool/commit.h"
#include "spool/spool.h"

void __wrap_scheduler_store(struct scheduler *s, struct message *m, stored_fn then, void *owner);
void __real_scheduler_store(struct scheduler *s, struct message *m, stored_fn then, void *owner);
void __wrap_spool_submit(struct spool *s, struct agent *self, struct spool_request *r);
void __real_spool_submit(struct spool *s, struct agent *self, struct spool_request *r);
void __wrap_commit_give_up(struct committer *c, int error);
void __real_commit_give_up(struct committer *c, int error);

void __wrap_log_event(struct log_client *c, const struct event *e);
void __real_log_event(struct log_client *c, const struct event *e);
void __wrap_log_event_again(struct log_client *c, const struct event *e, uint32_t changed);
void __real_log_event_again(struct log_client *c, const struct event *e, uint32_t changed);

/*
 * What ld's --wrap links between modules of the program, for the books to see: what becomes a
 * message, what is asked of the spool, and what is logged. Each calls what it stands for.
 */
#pragma once

#include "agents/scheduler.h"
#include "core/mail/mainlog.h"
#include "spool/commit.h"
#include "spool/spool.h"

void __wrap_scheduler_store(struct scheduler *s, struct message *m, stored_fn then, void *owner);
void __real_scheduler_store(struct scheduler *s, struct message *m, stored_fn then, void *owner);
void __wrap_spool_submit(struct spool *s, struct agent *self, struct spool_request *r);
void __real_spool_submit(struct spool *s, struct agent *self, struct spool_request *r);
void __wrap_commit_give_up(struct committer *c, int error);
void __real_commit_give_up(struct committer *c, int error);

size_t __wrap_mainlog_reception(char *line, const struct mainlog_reception *r);
size_t __real_mainlog_reception(char *line, const struct mainlog_reception *r);
size_t __wrap_mainlog_delivery(char *line, const struct mainlog_attempt *a);
size_t __real_mainlog_delivery(char *line, const struct mainlog_attempt *a);
size_t __wrap_mainlog_transient(char *line, const struct mainlog_attempt *a);
size_t __real_mainlog_transient(char *line, const struct mainlog_attempt *a);
size_t __wrap_mainlog_permanent(char *line, const struct mainlog_attempt *a);
size_t __real_mainlog_permanent(char *line, const struct mainlog_attempt *a);
size_t __wrap_mainlog_rejection(char *line, const struct mainlog_rejection *r);
size_t __real_mainlog_rejection(char *line, const struct mainlog_rejection *r);
size_t __wrap_mainlog_heartbeat(char *line, uint64_t time_s);
size_t __real_mainlog_heartbeat(char *line, uint64_t time_s);

/*
 * What ld's --wrap links between modules of the program, for the accounts to see: the life of its
 * pools. Each calls what it stands for.
 */
#pragma once

#include "core/mail/message.h"
#include "core/runtime/pool.h"

void __wrap_pool_init(struct pool *p, const char *name, size_t size, uint32_t keep_max);
void __real_pool_init(struct pool *p, const char *name, size_t size, uint32_t keep_max);
void __wrap_pool_close(struct pool *p);
void __real_pool_close(struct pool *p);
void __wrap_mail_pools_close(struct mail_pools *p);
void __real_mail_pools_close(struct mail_pools *p);

#include "tests/sim/world.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/runtime/check.h"

#define ARENA_BYTES (UINT64_C(1) << 30)
/* Blocks up to this size have a free list for each multiple of 16 bytes. */
#define SMALL_MAX 4096U
#define SMALL_LISTS (SMALL_MAX / 16 + 1)
#define LARGE_LISTS 32
#define EVENTS_FIRST 1024

struct event {
	uint64_t at_ns;
	uint64_t order;
	world_fn fn;
	void *object;
	uint64_t value;
	/* 0: of the world; otherwise of that life only. */
	uint32_t life;
};

struct free_block {
	struct free_block *next;
};

/* What stands at the start of the arena. */
struct arena {
	struct world world;
	uint64_t used;
	struct free_block *small[SMALL_LISTS];
	struct free_block *large[LARGE_LISTS];
	/* A binary heap. */
	struct event *events;
	uint32_t event_count;
	uint32_t event_room;
	uint64_t event_order;
};

struct world *world;

static struct arena *arena(void)
{
	return (struct arena *)(void *)world;
}

/* ---- life of the world ---- */

static uint64_t split_mix(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

void world_create(uint64_t seed)
{
	void *memory = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct arena *a = memory;
	uint64_t state = seed;

	ASSERT(memory != MAP_FAILED && world == NULL);
	world = memory;
	a->used = (sizeof *a + 63) & ~UINT64_C(63);
	world->seed = seed;
	world->random_state[0] = split_mix(&state);
	world->random_state[1] = split_mix(&state);
	world->trace = UINT64_C(0xcbf29ce484222325);
}

void world_destroy(void)
{
	ASSERT(munmap(world, ARENA_BYTES) == 0);
	world = NULL;
}

/* ---- memory ---- */

/* Blocks over SMALL_MAX are rounded up to a power of two. */
static struct free_block **list_of(size_t *size)
{
	unsigned bits;

	if (*size <= SMALL_MAX) {
		*size = (*size + 15) & ~(size_t)15;
		return &arena()->small[*size / 16];
	}
	bits = 64U - (unsigned)__builtin_clzll(*size - 1);
	*size = (size_t)1 << bits;
	ASSERT(bits < LARGE_LISTS);
	return &arena()->large[bits];
}

void *world_alloc(size_t size)
{
	struct arena *a = arena();
	struct free_block **list;
	struct free_block *block;

	size = size != 0 ? size : 1;
	list = list_of(&size);
	block = *list;
	if (block != NULL) {
		*list = block->next;
		memset(block, 0, size);
		return block;
	}
	if (a->used + size > ARENA_BYTES) {
		world_fail("the simulator's arena of %llu bytes is used up",
			   (unsigned long long)ARENA_BYTES);
	}
	a->used += size;
	return (char *)a + a->used - size;
}

void world_free(void *data, size_t size)
{
	struct free_block **list;
	struct free_block *block = data;

	if (data == NULL) {
		return;
	}
	size = size != 0 ? size : 1;
	list = list_of(&size);
	block->next = *list;
	*list = block;
}

/* ---- randomness ---- */

static uint64_t rotate(uint64_t x, int bits)
{
	return (x << bits) | (x >> (64 - bits));
}

uint64_t world_random(void)
{
	uint64_t *s = world->random_state;
	uint64_t result = s[0] + s[1];

	s[1] ^= s[0];
	s[0] = rotate(s[0], 24) ^ s[1] ^ (s[1] << 16);
	s[1] = rotate(s[1], 37);
	return result;
}

uint64_t world_below(uint64_t n)
{
	ASSERT(n > 0);
	return (uint64_t)(((unsigned __int128)world_random() * n) >> 64);
}

uint64_t world_between(uint64_t low, uint64_t high)
{
	ASSERT(low <= high);
	return low + world_below(high - low + 1);
}

bool world_chance(unsigned permille)
{
	if (permille == 0 || permille >= 1000) {
		return permille != 0;
	}
	return world_below(1000) < permille;
}

/* ---- events ---- */

static bool before(const struct event *a, const struct event *b)
{
	return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void sift_up(struct event *heap, uint32_t i)
{
	struct event moved = heap[i];

	while (i > 0 && before(&moved, &heap[(i - 1) / 2])) {
		heap[i] = heap[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	heap[i] = moved;
}

static void sift_down(struct event *heap, uint32_t count)
{
	struct event moved = heap[0];
	uint32_t i = 0;

	while (i * 2 + 1 < count) {
		uint32_t child = i * 2 + 1;

		if (child + 1 < count && before(&heap[child + 1], &heap[child])) {
			child++;
		}
		if (!before(&heap[child], &moved)) {
			break;
		}
		heap[i] = heap[child];
		i = child;
	}
	heap[i] = moved;
}

static void push_event(uint64_t delay_ns, world_fn fn, void *object, uint64_t value, uint32_t life)
{
	struct arena *a = arena();

	if (a->event_count == a->event_room) {
		uint32_t room = a->event_room == 0 ? EVENTS_FIRST : a->event_room * 2;
		struct event *grown = world_alloc(room * sizeof *grown);

		if (a->event_count > 0) {
			memcpy(grown, a->events, a->event_count * sizeof *grown);
		}
		world_free(a->events, a->event_room * sizeof *grown);
		a->events = grown;
		a->event_room = room;
	}
	a->events[a->event_count] = (struct event){
		.at_ns = world->now_ns + delay_ns,
		.order = a->event_order++,
		.fn = fn,
		.object = object,
		.value = value,
		.life = life,
	};
	sift_up(a->events, a->event_count++);
}

void world_at(uint64_t delay_ns, world_fn fn, void *object, uint64_t value)
{
	push_event(delay_ns, fn, object, value, 0);
}

void world_at_life(uint64_t delay_ns, world_fn fn, void *object, uint64_t value)
{
	push_event(delay_ns, fn, object, value, world->life);
}

static void nothing(void *object, uint64_t value)
{
	(void)object;
	(void)value;
}

void world_forget(const void *object)
{
	struct arena *a = arena();

	for (uint32_t i = 0; i < a->event_count; i++) {
		if (a->events[i].object == object) {
			a->events[i].fn = nothing;
			a->events[i].object = NULL;
		}
	}
}

uint64_t world_next_ns(void)
{
	return arena()->event_count != 0 ? arena()->events[0].at_ns : UINT64_MAX;
}

void world_advance(uint64_t now_ns)
{
	struct arena *a = arena();

	while (a->event_count != 0 && a->events[0].at_ns <= now_ns) {
		struct event e = a->events[0];

		a->events[0] = a->events[--a->event_count];
		if (a->event_count != 0) {
			sift_down(a->events, a->event_count);
		}
		if (e.at_ns > world->now_ns) {
			world->now_ns = e.at_ns;
		}
		if (e.life == 0 || e.life == world->life) {
			e.fn(e.object, e.value);
		}
	}
	if (now_ns > world->now_ns) {
		world->now_ns = now_ns;
	}
}

/* ---- what happened ---- */

static void mix(uint64_t x)
{
	world->trace = (world->trace ^ x) * UINT64_C(0x100000001b3);
	world->trace ^= world->trace >> 29;
}

void world_trace(const char *what, uint64_t a, uint64_t b)
{
	for (const char *c = what; *c != '\0'; c++) {
		mix((unsigned char)*c);
	}
	mix(world->now_ns);
	mix(a);
	mix(b);
	world->trace_events++;
	if (world->verbose) {
		world_say("%s %llu %llu", what, (unsigned long long)a, (unsigned long long)b);
	}
}

void world_say(const char *format, ...)
{
	char text[1024];
	va_list args;

	if (!world->verbose) {
		return;
	}
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	dprintf(STDOUT_FILENO, "%u %12.6f %s\n", world->life, (double)world->now_ns / 1e9, text);
}

void world_fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(world->failure, sizeof world->failure, format, args);
	va_end(args);
	_exit(LIFE_FAILED);
}

static uint64_t monotonic_ns(void *context)
{
	(void)context;
	/* From 1 s on: a clock that says 0 has not been read. */
	return world->now_ns + NS_PER_S;
}

static uint64_t wall_ns(void *context)
{
	(void)context;
	return WORLD_EPOCH_NS + world->now_ns;
}

const struct clock world_clock = {monotonic_ns, wall_ns, NULL};

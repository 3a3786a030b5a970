/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/fs/table.h"

#include <errno.h>
#include <stdlib.h>

#define ROOM_MIN 64u
#define ROOM_MAX (1u << 28)

static int grow(struct table *t)
{
	uint32_t room = t->room ? t->room * 2 : ROOM_MIN;
	uint32_t *generation, *free_list;
	void **slot;

	if (room > ROOM_MAX)
		return -ENOMEM;
	slot = realloc(t->slot, room * sizeof(*slot));
	if (slot)
		t->slot = slot;
	generation = realloc(t->generation, room * sizeof(*generation));
	if (generation)
		t->generation = generation;
	free_list = realloc(t->free_list, room * sizeof(*free_list));
	if (free_list)
		t->free_list = free_list;
	if (!slot || !generation || !free_list)
		return -ENOMEM;	/* those that grew are merely larger than room says */
	for (uint32_t i = t->room; i < room; i++) {
		slot[i] = NULL;
		generation[i] = 0;
	}
	t->room = room;
	return 0;
}

int table_add(struct table *t, void *object, uint64_t *ret_id, uint64_t *ret_generation)
{
	uint32_t i;

	if (t->nfree) {
		i = t->free_list[--t->nfree];
	} else {
		if (t->used == t->room && grow(t) < 0)
			return -ENOMEM;
		i = t->used++;
	}
	t->slot[i] = object;
	*ret_id = (uint64_t)i + 1;
	*ret_generation = t->generation[i]++;
	return 0;
}

void *table_find(const struct table *t, uint64_t id)
{
	return id - 1 < t->used ? t->slot[id - 1] : NULL;	/* id 0 wraps */
}

void table_place_begin(struct table *t)
{
	/* Else an id could be free and placed at once, and be freed twice later. */
	t->nfree = 0;
}

int table_place(struct table *t, uint64_t id, void *object, uint32_t generation)
{
	while (id > t->room)
		if (grow(t) < 0)
			return -ENOMEM;
	t->slot[id - 1] = object;
	t->generation[id - 1] = generation;
	if (id > t->used)
		t->used = (uint32_t)id;
	return 0;
}

void table_place_end(struct table *t, const uint8_t *is_taken, uint32_t n)
{
	for (uint32_t i = 0; i < t->used; i++)
		if (i >= n || !is_taken[i])
			t->free_list[t->nfree++] = i;
}

void table_remove(struct table *t, uint64_t id)
{
	t->slot[id - 1] = NULL;
	t->free_list[t->nfree++] = (uint32_t)(id - 1);
}

void table_finish(struct table *t)
{
	free(t->slot);
	free(t->generation);
	free(t->free_list);
	*t = (struct table){ 0 };
}

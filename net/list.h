/* SPDX-License-Identifier: Apache-2.0 */
/* Private to net/: a ring of links with a head; a link that points to itself is in no list. */
#ifndef NET_LIST_H
#define NET_LIST_H

#include <stdbool.h>

struct list {
	struct list *prev, *next;
};

static inline void list_init(struct list *list)
{
	list->prev = list->next = list;
}

static inline bool list_empty(const struct list *list)
{
	return list->next == list;
}

static inline void list_remove(struct list *link)
{
	link->prev->next = link->next;
	link->next->prev = link->prev;
	list_init(link);
}

/* Puts @link, which may be in another list, at the end. */
static inline void list_append(struct list *list, struct list *link)
{
	list_remove(link);
	link->prev = list->prev;
	link->next = list;
	list->prev->next = link;
	list->prev = link;
}

#endif /* NET_LIST_H */

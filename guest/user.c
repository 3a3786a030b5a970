/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/user.h"

#include "base/checked.h"
#include "guest/text.h"

#include <stdbool.h>
#include <string.h>

#define ID_MAX 0xfffffffeull	/* (uid_t)-1 means "no change" to the kernel */
#define COLUMNS_MAX 7	/* of /etc/passwd */

/* Part of a file, not NUL-terminated. */
struct span {
	const char *at;
	size_t len;
};

/* Takes the part of @rest before the next @sep; false when nothing is left. */
static bool take(struct span *rest, char sep, struct span *ret_part)
{
	const char *end;

	if (!rest->at)
		return false;
	end = memchr(rest->at, sep, rest->len);
	*ret_part = (struct span){ rest->at, end ? (size_t)(end - rest->at) : rest->len };
	if (end)
		*rest = (struct span){ end + 1, rest->len - ret_part->len - 1 };
	else
		*rest = (struct span){ NULL, 0 };
	return true;
}

static bool equal(struct span a, struct span b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.at, b.at, a.len) == 0);
}

static bool to_id(struct span s, uint32_t *ret_id)
{
	uint64_t v;

	if (text_to_num(s.at, s.len, ID_MAX, &v) < 0)
		return false;
	*ret_id = (uint32_t)v;
	return true;
}

/* Splits the next line of @file into columns; the missing ones are empty. */
static bool next_entry(struct span *file, struct span column[COLUMNS_MAX])
{
	struct span line;

	if (!take(file, '\n', &line))
		return false;
	for (size_t i = 0; i < COLUMNS_MAX; i++)
		if (!take(&line, ':', &column[i]))
			column[i] = (struct span){ "", 0 };
	return true;
}

/* passwd: name:password:uid:gid:gecos:home:shell.  A name beats a number. */
static bool find_user(struct span passwd, struct span who, struct span *ret_name, struct user *user)
{
	struct span col[COLUMNS_MAX];
	uint32_t number = 0, uid, gid;
	bool numeric = to_id(who, &number), found = false;

	while (next_entry(&passwd, col)) {
		bool named = equal(col[0], who);

		if (!to_id(col[2], &uid) || !to_id(col[3], &gid))
			continue;
		if (!named && (found || !numeric || uid != number))
			continue;
		user->uid = uid;
		user->gid = gid;
		*ret_name = col[0];
		user->home[0] = '\0';
		if (col[5].len < sizeof(user->home)) {
			memcpy(user->home, col[5].at, col[5].len);
			user->home[col[5].len] = '\0';
		}
		found = true;
		if (named)
			break;
	}
	if (!found && numeric) {
		user->uid = number;
		found = true;
	}
	return found;
}

/* group: name:password:gid:member,member */
static bool find_group(struct span group, struct span which, uint32_t *ret_gid)
{
	struct span col[COLUMNS_MAX];
	uint32_t gid;

	while (next_entry(&group, col))
		if (equal(col[0], which) && to_id(col[2], &gid)) {
			*ret_gid = gid;
			return true;
		}
	return to_id(which, ret_gid);
}

static bool is_member(struct span members, struct span name)
{
	struct span member;

	while (take(&members, ',', &member))
		if (equal(member, name))
			return true;
	return false;
}

static void add_groups(struct span group, struct span name, struct user *user)
{
	struct span col[COLUMNS_MAX];
	uint32_t gid;

	while (user->ngroups < ARRAY_SIZE(user->groups) && next_entry(&group, col))
		if (is_member(col[3], name) && to_id(col[2], &gid) && gid != user->gid)
			user->groups[user->ngroups++] = gid;
}

int user_resolve(const char *spec, const char *passwd, size_t passwd_len, const char *group,
		 size_t group_len, struct user *ret_user)
{
	struct span rest = { spec ? spec : "", spec ? strlen(spec) : 0 };
	struct span who, which, name = { "", 0 };
	struct span groups = { group, group_len };

	*ret_user = (struct user){ .uid = 0 };
	if (!take(&rest, ':', &who) || who.len == 0)
		who = (struct span){ "0", 1 };
	if (!find_user((struct span){ passwd, passwd_len }, who, &name, ret_user))
		return -1;
	if (rest.at && rest.len)
		return take(&rest, '\n', &which) && find_group(groups, which, &ret_user->gid) ? 0 : -2;
	if (name.len) {	/* the primary group is among the groups, as after a login */
		ret_user->groups[ret_user->ngroups++] = ret_user->gid;
		add_groups(groups, name, ret_user);
	}
	return 0;
}

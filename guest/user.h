/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who a command runs as: "name|uid[:group|gid]" looked up in the text of the
 * guest's /etc/passwd and /etc/group, without the C library's name service
 * (which would load modules from the image into the agent).
 */
#ifndef GUEST_USER_H
#define GUEST_USER_H

#include <stddef.h>
#include <stdint.h>

#define USER_GROUPS_MAX 64 /* supplementary; further ones are left out */
#define USER_HOME_MAX 256 /* bytes, NUL included */

struct user {
	uint32_t uid, gid;
	uint32_t groups[USER_GROUPS_MAX];
	unsigned ngroups;
	char home[USER_HOME_MAX];	/* "" when the user has no entry */
};

/*
 * Resolves @spec (NULL or "": root).  A number need not be in @passwd; its
 * group is then 0.  Supplementary groups come from @group unless @spec names
 * the group, as container engines do.
 *
 * Returns 0, -1 when the user is unknown, -2 when the group is.
 */
int user_resolve(const char *spec, const char *passwd, size_t passwd_len, const char *group,
		 size_t group_len, struct user *ret_user);

#endif /* GUEST_USER_H */

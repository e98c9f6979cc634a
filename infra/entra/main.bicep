// The app registration that callers get tokens for, and its roles. Apart from the rest, because whoever deploys it needs
// Application.ReadWrite.All of Microsoft Graph, which whoever deploys the resources should not have.
targetScope = 'subscription'

extension microsoftGraphV1

@description('As in infra/main.bicep.')
param environmentName string

// The registry's roles; the names are those of deployr_core/registry/roles.py. A pipeline may have those by which runs are
// registered and deployed; to approve takes a person. And a role of applications alone: who may ask for scores.
var roles = [
  { value: 'viewer', members: ['User', 'Application'], says: 'Sees models, runs, figures and the record.' }
  { value: 'developer', members: ['User', 'Application'], says: 'Trains and proposes; cannot approve what it trained.' }
  { value: 'approver', members: ['User'], says: 'Approves, rejects, deploys and rolls back.' }
  { value: 'Scores.Ask', members: ['Application'], says: 'Asks for scores; see docs/connecting.md, who may call.' }
]

resource bridge 'Microsoft.Graph/applications@v1.0' = {
  uniqueName: 'deployr-${environmentName}'
  displayName: 'deployr ${environmentName}'
  signInAudience: 'AzureADMyOrg'
  // Version 2: the issuer and the audience that DEPLOYR_JSON_CALLERS compares with.
  api: { requestedAccessTokenVersion: 2 }
  appRoles: [
    for role in roles: {
      id: guid('deployr', environmentName, role.value)
      value: role.value
      displayName: role.value
      description: role.says
      allowedMemberTypes: role.members
      isEnabled: true
    }
  ]
}

resource principal 'Microsoft.Graph/servicePrincipals@v1.0' = {
  appId: bridge.appId
  // Nobody gets a token without a role that somebody gave.
  appRoleAssignmentRequired: true
}

output audience string = bridge.appId
output servicePrincipalId string = principal.id

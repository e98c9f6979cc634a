// Logs, traces and metrics. None of them holds an identity, and they are kept apart from what does all the same.
param token string
param location string
param tags object
param isPrivate bool

@description('Who may send telemetry; nobody can with a key.')
param writerPrincipalId string

resource workspace 'Microsoft.OperationalInsights/workspaces@2023-09-01' = {
  name: 'log-deployr-${token}'
  location: location
  tags: tags
  properties: {
    sku: { name: 'PerGB2018' }
    retentionInDays: isPrivate ? 90 : 30
    features: { disableLocalAuth: true, enableLogAccessUsingOnlyResourcePermissions: true }
    publicNetworkAccessForIngestion: isPrivate ? 'Disabled' : 'Enabled'
    // Operators look from their desks, with Entra ID and a role.
    publicNetworkAccessForQuery: 'Enabled'
  }
}

resource insights 'Microsoft.Insights/components@2020-02-02' = {
  name: 'appi-deployr-${token}'
  location: location
  tags: tags
  kind: 'web'
  properties: {
    Application_Type: 'web'
    WorkspaceResourceId: workspace.id
    DisableLocalAuth: true
    publicNetworkAccessForIngestion: isPrivate ? 'Disabled' : 'Enabled'
    publicNetworkAccessForQuery: 'Enabled'
  }
}

var monitoringMetricsPublisher = '3913510d-42f4-4e42-8a64-420c390055eb'

resource writer 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(insights.id, writerPrincipalId, monitoringMetricsPublisher)
  scope: insights
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', monitoringMetricsPublisher)
    principalId: writerPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource linkScope 'Microsoft.Insights/privateLinkScopes@2021-07-01-preview' = if (isPrivate) {
  name: 'ampls-deployr-${token}'
  location: 'global'
  tags: tags
  properties: {
    // Open: only what is in the scope is reached privately. Closed would cut off whoever shares our names' zones.
    accessModeSettings: { ingestionAccessMode: 'Open', queryAccessMode: 'Open' }
  }

  resource insightsLink 'scopedResources' = {
    name: 'insights'
    properties: { linkedResourceId: insights.id }
  }

  resource workspaceLink 'scopedResources' = {
    name: 'workspace'
    properties: { linkedResourceId: workspace.id }
  }
}

output workspaceId string = workspace.id
output connectionString string = insights.properties.ConnectionString
output scopeId string = isPrivate ? linkScope.id : ''
